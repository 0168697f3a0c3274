"""What a run costs and how it lies on its devices: formulas, meshes, compilation, chips."""
