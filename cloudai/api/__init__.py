"""REST and streaming over the controller's socket: every front door is this one."""
