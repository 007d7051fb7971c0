"""Names a photo."""


def name_of(photo):
    return photo.name
