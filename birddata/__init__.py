"""Photos and labels before a training: bring them into the course's layout, check them, draw some.

sources    a folder, a zip or a tar becomes one table of files
photos     one photo: is it readable, what are its bytes, can it be made a JPEG
samples    what the files are: tests, CUB-200-2011, a table beside photos, class folders
writing    tests appear whole or not at all; prepare decides what is in them
findings   what can be wrong with them
doctor     finds it; copies finds photos that are there twice
sketchbook draws the built-in sample

What a photo is, and which photo a name in a table means, is solution.py's to say.
"""
