"""From a run to an int8 model folder that is proven against its float parent. Needs TensorFlow."""
