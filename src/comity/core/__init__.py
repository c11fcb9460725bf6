"""The data type, the protocols, the wire and the rules: what every other room stands on."""
