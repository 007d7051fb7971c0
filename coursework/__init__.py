"""The sister assignments, trained by Lightning; see docs/coursework.md."""
