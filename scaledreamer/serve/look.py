"""How the page looks."""

ACCENT = "#3b5bdb"
STAGE = "#eef1f6"
"""Behind the object, as the style below has it."""
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><path d="M16 2 29 9v14l-13 7L3 23V9z" fill="#3b5bdb"/>'
    '<path d="M16 16 29 9M16 16v14M16 16 3 9" stroke="#fff" stroke-width="2" fill="none"/></svg>'
)

DOING = {
    "waiting": "waiting",
    "text": "reading the prompt",
    "object": "making the object",
    "mesh": "finding its surface",
    "file": "writing the GLB",
    "video": "filming a turn",
}
"""What is said of each stage while it lasts."""

STYLE = """
body { background: #f7f8fa; color: #1f2733; }
.card { background: #fff; border: 1px solid #e3e7ee; border-radius: 14px; box-shadow: 0 1px 3px rgb(20 30 60 / 5%); }
.stage { background: #eef1f6; height: min(64vh, 640px); min-height: 320px; }
.stage canvas { cursor: grab; }
.stage canvas:active { cursor: grabbing; }
.hint { position: absolute; inset: 0; display: flex; align-items: center; justify-content: center; color: #8a94a6;
        pointer-events: none; }
.progress { position: absolute; left: 14px; bottom: 14px; padding: 6px 14px; border-radius: 999px;
            background: rgb(255 255 255 / 90%); box-shadow: 0 1px 6px rgb(20 30 60 / 15%); }
.example { border-radius: 8px; margin: 0; padding: 12px 10px; max-width: 100%; }
.words { font-size: 13px; color: #475066; margin: -4px 0 -8px -16px; }
.time { font-size: 14px; font-variant-numeric: tabular-nums; }
.download { padding: 6px 16px; border-radius: 8px; background: #3b5bdb; color: #fff !important;
            text-decoration: none; font-size: 14px; font-weight: 500; }
.download:hover { background: #3149b0; }
"""
