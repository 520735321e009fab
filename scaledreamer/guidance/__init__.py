"""Score distillation: prior + rule + timestep schedule + view prompts -> a loss on renders."""
