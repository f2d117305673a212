"""From labelled pictures to a run: data, training and its report. Needs TensorFlow."""
