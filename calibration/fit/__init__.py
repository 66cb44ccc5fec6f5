"""The fit itself: labels, gradients, steps, folds, judgement."""
