"""Reports: pages of text, tables and pictures, and what the bird training puts on one."""
