"""Faces that the prior is only ever tested on.

They share the head's shapes and the renderer with the faces that it is trained on (`nextface.prior.data`), but no model of
skin, no texture, no environment and no code that makes noise. Nothing in the package `nextface` may import from here.
"""
