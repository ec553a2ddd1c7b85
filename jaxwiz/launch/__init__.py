"""The launch spec: one file that says what a job is, read by every script under launch/."""
