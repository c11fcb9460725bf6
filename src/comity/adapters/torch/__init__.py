"""Ordinary torch modules as models: one flat vector, one reused module, no state_dict and no DataLoader."""
