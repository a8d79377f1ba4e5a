"""From one photo of a face to a relightable head."""
