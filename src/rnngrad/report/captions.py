"""The figures' alternative texts, and captions that say what to look at."""

ALT = {
    "windows": "Four small plots of mean |d state_t / d state_0| on linear axes: the RNN over "
    "early and over late steps, the LSTM over its first and its last steps.",
    "conditions": "Curves of log10 mean |d state_t / d state_0| over all steps per cell, in the "
    "question's setting, without padding, with another initialiser, and with neither.",
    "jacobian": "Curves of log10 mean |d state_t / d state_0| over the steps, per cell, "
    "untrained and trained, with the limit of float32.",
    "training": "Loss and accuracy per epoch of every cell, training and validation split.",
    "remembered": "Two plots over the distance of the last telling word from the end: how well "
    "comments are told apart, and how much gradient reaches the word, per cell.",
    "gates": "Histograms of gate activations before and after training, on padding and on words.",
    "triangle": "Heat maps over the step of the loss and the step at which the recurrent weight is "
    "used, one triangle per cell: the norm of the part of the gradient.",
    "paths": "Curves of the Frobenius norm of the LSTM's total Jacobian, its cell path and its "
    "hidden path, untrained and trained, over all steps and over the first ones.",
    "lengths": "Histogram of the number of words per comment on a logarithmic axis.",
}
CAPTIONS = {
    "windows": "What the question looked at, on its own axes: a few windows, in float32 with "
    "flush-to-zero for the LSTM. Circles: what it printed, times two, since its mean was halved. "
    "The steps between were never computed. Bands: range over weight seeds.",
    "conditions": "The same statistic at every step, as log10. The dashed line is where float32 "
    "ends. Compare which cell is on top in the question's setting, and which where its padding or "
    "its initialiser is taken away. Bands: range over weight seeds.",
    "jacobian": "How much of a change of the first state arrives at step t. Thin lines: seeds; "
    "thick: their median; each the median over comments. Below the dashed line float32 cannot hold "
    "the value: grey, as a denormal number with lost digits or, under flush-to-zero, as 0.",
    "training": "Bands: 95% interval of the mean over seeds, for the validation split.",
    "remembered": "If the gradient predicts what is remembered, both fall together. Comments "
    "whose last telling word is known, in groups by distance; bands: 95% interval over seeds.",
    "gates": "The gate multiplies the state that it keeps: at 1 nothing is lost. Mean over seeds.",
    "triangle": "Each row is one loss: bright steps are those that its gradient of W_hh comes "
    "from. A bright diagonal alone is a short memory. Median over seeds, one comment.",
    "paths": "The cell path is what the tutorials draw; the hidden path is all that passes through "
    "h at least once. Where total and hidden path coincide, the gates alone say nothing.",
    "lengths": "Half of the comments are shorter than {median:.0f} words; ",
}
