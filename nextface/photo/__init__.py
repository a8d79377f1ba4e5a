"""Reading a photo of any common kind and cropping it to the face."""

from nextface.photo.crop import Crop, Photo, crop_to_face, cut
from nextface.photo.source import SourcePhoto, load_image

__all__ = ["Crop", "Photo", "SourcePhoto", "crop_to_face", "cut", "load_image"]
