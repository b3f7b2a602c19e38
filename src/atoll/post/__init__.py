"""What is made of models after they are trained: merges, evolved instructions, and the pipeline of it all."""
