"""What the words in reports mean, said where they stand."""

from __future__ import annotations

WORDS = {
    "R²": "How much of a movement's variation the decoder gets right: 1 is all of it, 0 is no "
    "better than always saying the mean, below 0 is worse than that. Of several outputs it is the "
    "mean.",
    "causal": "Each value is decoded from spikes before its moment alone, as in a live run.",
    "acausal": "The number that papers print: windows overlap, spikes after a moment count too, "
    "and the predictions are averaged. No live decoder reaches it.",
    "held out": "Labelled time that the fit did not learn from. It is kept apart in blocks, so "
    "that what is judged is new to the session.",
    "95 % interval": "Where the figure would lie in 19 of 20 such data sets, by resampling blocks.",
    "step": "One correction of the session's numbers, made from a few windows.",
    "labelled seconds": "Seconds of recording of which the movement, or the intention, is known.",
    "unit": "A neuron, or what one electrode hears: whatever spikes are counted by.",
    "session": "One day's set of units. The model stays; a session holds what is different about "
    "its units.",
    "in use": "The session that decoded before this one, judged on the same samples.",
    "Wiener filter": "A linear decoder of spike counts in the last second, fitted to the same "
    "labels. A model that is worse than it is not worth its time.",
    "Kalman filter": "A linear decoder that also knows how movements go on; the usual one of "
    "cursor control.",
    "MLP": "A small network on spike counts, fitted to the same labels.",
    "GRU": "A small recurrent network on spike counts, fitted to the same labels.",
    "distance from trained units": "How unlike a unit's numbers are to those of the units that "
    "the model was trained with: 1 is typical of them, from 2 on it is far.",
    "alike": "Two units whose counts rise and fall together: perhaps one neuron that was sorted "
    "twice.",
    "angular error": "The angle between where the decoded movement points and where it should.",
    "gain": "Decoded speed divided by the speed that was meant: 1 is right, less feels slow.",
    "p50, p99, p99.9": "Half, 99 of 100, and 999 of 1000 of all values took no longer.",
    "latency": "From the call of decode to its result, on the machine that made this report.",
    "VALID": "A value from a whole window of a stream that is as it should be.",
    "WARMUP": "A value from the start of a stream: a window is not full yet, or it is "
    "not settled yet (3 to 5 s) that the stream is the session's.",
    "DEGRADED": "A value with a reservation, which its flags name.",
    "HELD": "The last good value, repeated for a moment because there is no new one.",
    "INVALID": "Nothing that anybody should act on: the value fades to zero.",
    "layout": "The way in which a training program stores a POYO; each has a letter and a number.",
    "container": "The outer form of the file, such as that of Lightning.",
    "omega": "The frequencies by which the model tells time. “v0.1.0” and “v0.1.1+” are the "
    "formulas of those releases of torch_brain; “custom” are others, and the file's own "
    "are used in each case.",
    "scale": "What the model's output is multiplied by to be in the unit of behaviour.",
    "parity": "The same windows through the checkpoint's own model and through what was exported: "
    "how far their outputs are apart.",
    "tolerance": "How far apart they may be. More, and nothing is exported.",
    "output sd": "The standard deviation of the model's output, the measure of what is small.",
    "gradient": "The slope that calibration follows; it is compared like the output.",
    "dead": "A matrix of weights that has all but vanished and passes on nothing.",
    "degenerate": "A matrix that has collapsed to fewer than two directions: little passes.",
    "FP16": "Numbers of half the size, as fast GPUs use them. Weights that are too small for them "
    "become zero or lose digits (“subnormal”); those too large would be infinite.",
    "latent": "One of the fixed number of places into which the model gathers a window's spikes.",
    "depth": "Layers between those places.",
    "window": "The stretch of time before a moment, that one value is decoded from.",
    "success": "Share of trials in which the target was reached in time and held.",
    "radius": "Of the target: smaller is harder.",
    "added latency": "Delay that was put between the array and the cursor, beside the decoder's.",
    "bits per second": "Throughput: each target is worth log₂(1 + distance / width) bits, divided "
    "by the time to get there; a failed trial is worth 0.",
    "path efficiency": "Straight distance to the target divided by the way that was taken: 1 is "
    "straight.",
    "dial-in": "From the first touch of a target to holding it.",
    "held command": "A constant velocity that is meant, and goes on being meant: does the decoder "
    "hold it?",
    "rise": "From the intention to 90 % of the largest value; the delay of the array is in it.",
    "rest": "Nothing is meant: what still moves is noise (sd) or pull to one side (bias).",
    "simulated": "Person, array and task are programs. No person or animal was in this loop.",
    "lead": "How long before a movement the spikes that belong to it come.",
    "smoothing": "Averaging over the last moments: steadier, and later.",
}  # fmt: skip


def explained(word: str) -> str:
    """What a word means.

    Raises:
        KeyError: nobody has said; add it to ``WORDS``.
    """
    return WORDS[word]
