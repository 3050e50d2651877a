"""How writes fan out and reads are looked for: strategies over guarded backends."""
