"""Realistic faults, put into a copy of the project one at a time: do the tests notice?"""
