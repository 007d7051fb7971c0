"""Reads a photo."""


def read(photo):
    return int(photo.read_text())
