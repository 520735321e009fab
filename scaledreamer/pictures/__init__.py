"""Pictures, contact sheets and videos in files."""
