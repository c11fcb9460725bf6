"""The main job: is it worth joining? Alone, ensemble, joint, personal and pooled on the same splits."""
