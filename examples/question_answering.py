"""Questions answered by an LSTM trained from scratch: embedding, LSTM, affine, softmax, in NumPy.

    python examples/question_answering.py     trains for some seconds, then answers

The network reads a question word by word, then the sign that it is to answer, and from there on
every word of its answer is its own next input, until it says that it has ended:

    reads     how many legs does a dog have  ?     four
    is to say                                four  <end>

What it says earlier is not looked at. Index convention as in `numpy_lstm`, and v the word, 0..V-1:

    x = embed[words]                  (N, T, D)
    h = LSTM(x), h_0 = c_0 = 0        (N, T, H)
    scores = h affine + bias          (N, T, V)
    p = softmax(scores),  L = - mean over the counted (n, t) of log p[n, t, word to say]

    dscores = (p - 1 at the word to say) / (how many are counted), 0 where nothing is counted
    d embed: a word that was read at several steps gets the sum of their dx. `embed[words] += dx`
    would keep one of them only: NumPy writes each repeated index once.

Adam: Kingma and Ba (2015), algorithm 1. Clipping by the global norm: Pascanu, Mikolov and Bengio
(2013), algorithm 1; it bounds the step when the gradient explodes and does nothing for one that
vanishes.
"""

from typing import NamedTuple

import numpy as np

from numpy_lstm import Weights, lstm_backward, lstm_forward, lstm_step_forward

ASK, END = "?", "<end>"

# Several of these differ in one early word only, so that the answer has to be carried to the end.
QUESTIONS = {
    "what colour is the sky on a clear day": "blue",
    "what colour is the grass on a clear day": "green",
    "what colour is the snow on a clear day": "white",
    "how many legs does a spider have": "eight",
    "how many legs does a dog have": "four",
    "how many legs does a bird have": "two",
    "what does a bee make": "honey",
    "what does a hen lay": "an egg",
    "where does a fish live": "in the water",
    "where does an owl live": "in a tree",
    "what do you wear on your feet": "socks and shoes",
    "when do the stars come out": "at night",
}


class Parameters(NamedTuple):
    """embed (V, D), the LSTM's Wx (D, 4H), Wh (H, 4H), b (4H,), affine (H, V), bias (V,).

    Also their gradients.
    """

    embed: np.ndarray
    Wx: np.ndarray
    Wh: np.ndarray
    b: np.ndarray
    affine: np.ndarray
    bias: np.ndarray

    @property
    def lstm(self) -> Weights:
        return Weights(self.Wx, self.Wh, self.b)


class Batch(NamedTuple):
    """read (N, T) and say (N, T): word numbers; counted (N, T) bool: where the loss looks."""

    read: np.ndarray
    say: np.ndarray
    counted: np.ndarray


class Settings(NamedTuple):
    """Sizes and training; the defaults learn the questions above."""

    D: int = 16
    H: int = 32
    seed: int = 0
    learning_rate: float = 0.01
    clip_norm: float = 0.25
    loss_below: float = 0.01
    most_steps: int = 2000


def vocabulary(questions: dict[str, str]) -> list[str]:
    """The words in alphabetical order, after the two signs."""
    words = {word for pair in questions.items() for text in pair for word in text.split()}
    return [ASK, END, *sorted(words)]


def numbers(text: str, words: list[str]) -> list[int]:
    """The word numbers of a text; ValueError for a word that is not in the vocabulary."""
    for word in text.split():
        if word not in words:
            raise ValueError(f"unknown word {word!r}: use the words of the training questions")
    return [words.index(word) for word in text.split()]


def encode(questions: dict[str, str], words: list[str]) -> Batch:
    """Questions of different lengths side by side; padding comes last and is not counted."""
    ask, end = words.index(ASK), words.index(END)
    rows = [(numbers(q, words), numbers(a, words)) for q, a in questions.items()]
    shape = len(rows), max(len(q) + len(a) + 1 for q, a in rows)
    batch = Batch(np.full(shape, end), np.full(shape, end), np.zeros(shape, dtype=bool))
    for n, (q, a) in enumerate(rows):
        stop = len(q) + 1 + len(a)
        batch.read[n, :stop] = [*q, ask, *a]
        batch.say[n, len(q) : stop] = [*a, end]
        batch.counted[n, len(q) : stop] = True
    return batch


def initial_parameters(V: int, D: int, H: int, rng: np.random.Generator) -> Parameters:
    """Normal numbers of variance 1 / (what is summed over); the forget gates start open (b = 1)."""
    b = np.zeros(4 * H)
    b[H : 2 * H] = 1
    return Parameters(
        embed=rng.standard_normal((V, D)),
        Wx=rng.standard_normal((D, 4 * H)) / np.sqrt(D),
        Wh=rng.standard_normal((H, 4 * H)) / np.sqrt(H),
        b=b,
        affine=rng.standard_normal((H, V)) / np.sqrt(H),
        bias=np.zeros(V),
    )


def cross_entropy(scores: np.ndarray, batch: Batch) -> tuple[float, np.ndarray]:
    """The mean loss over what is counted, and dL/dscores (N, T, V)."""
    # the largest score is subtracted so that exp cannot overflow; p stays what it is
    shifted = scores - scores.max(axis=2, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True))
    n, t = np.nonzero(batch.counted)
    v = batch.say[n, t]
    dscores = np.zeros_like(scores)
    dscores[n, t] = np.exp(log_p[n, t])
    dscores[n, t, v] -= 1
    return float(-log_p[n, t, v].mean()), dscores / len(n)


def loss_and_gradients(p: Parameters, batch: Batch) -> tuple[float, Parameters]:
    """Forward through the four layers, and back through them."""
    x = p.embed[batch.read]
    h, steps = lstm_forward(x, np.zeros((len(x), len(p.Wh))), p.lstm)
    loss, dscores = cross_entropy(h @ p.affine + p.bias, batch)
    back = lstm_backward(dscores @ p.affine.T, steps, p.lstm)
    dembed = np.zeros_like(p.embed)
    np.add.at(dembed, batch.read, back.x)
    return loss, Parameters(
        embed=dembed,
        Wx=back.Wx,
        Wh=back.Wh,
        b=back.b,
        affine=np.einsum("nth,ntv->hv", h, dscores),
        bias=np.einsum("ntv->v", dscores),
    )


def clipped(gradients: Parameters, limit: float) -> tuple[Parameters, float]:
    """Gradients whose global norm is at most `limit`, direction kept, and the norm before."""
    norm = float(np.sqrt(sum((g**2).sum() for g in gradients)))
    factor = min(1.0, limit / norm) if norm > 0 else 1.0
    return Parameters(*(factor * g for g in gradients)), norm


class Adam:
    """Adam's two running means; `step` returns new parameters and leaves the old ones alone."""

    def __init__(self, p: Parameters, learning_rate: float) -> None:
        self.learning_rate, self.count = learning_rate, 0
        self.mean = [np.zeros_like(w) for w in p]
        self.square = [np.zeros_like(w) for w in p]

    def step(self, p: Parameters, gradients: Parameters) -> Parameters:
        self.count += 1
        self.mean = [0.9 * m + 0.1 * g for m, g in zip(self.mean, gradients, strict=True)]
        self.square = [
            0.999 * s + 0.001 * g**2 for s, g in zip(self.square, gradients, strict=True)
        ]
        # both start at zero and are too small at first
        m, s = 1 - 0.9**self.count, 1 - 0.999**self.count
        moves = [
            mean / m / (np.sqrt(square / s) + 1e-8)
            for mean, square in zip(self.mean, self.square, strict=True)
        ]
        return Parameters(
            *(w - self.learning_rate * move for w, move in zip(p, moves, strict=True))
        )


def answer(p: Parameters, question: str, words: list[str], longest: int = 10) -> str:
    """The network's answer to a question, at most `longest` words; ValueError: unknown word."""
    h = c = np.zeros((1, len(p.Wh)))
    said: list[int] = []
    read = [*numbers(question, words), words.index(ASK)]
    while len(said) < longest:
        for word in read:
            step = lstm_step_forward(p.embed[[word]], h, c, p.lstm)
            h, c = step.h, step.c
        read = [int((h @ p.affine + p.bias).argmax())]
        if words[read[0]] == END:
            break
        said += read
    return " ".join(words[v] for v in said)


def train(questions: dict[str, str], settings: Settings) -> Parameters:
    """Full batches until the loss is below its bound and every answer is right; prints the loss.

    Raises:
        RuntimeError: not so after `most_steps` steps.
    """
    words = vocabulary(questions)
    batch = encode(questions, words)
    rng = np.random.default_rng(settings.seed)
    p = initial_parameters(len(words), settings.D, settings.H, rng)
    adam = Adam(p, settings.learning_rate)
    for step in range(settings.most_steps):
        loss, gradients = loss_and_gradients(p, batch)
        gradients, norm = clipped(gradients, settings.clip_norm)
        learned = loss < settings.loss_below
        learned = learned and all(answer(p, q, words) == a for q, a in questions.items())
        if learned or step % 10 == 0:
            now = min(norm, settings.clip_norm)
            print(f"step {step:4}   loss {loss:.4f}   gradient norm {norm:.4f}, clipped {now:.4f}")
        if learned:
            return p
        p = adam.step(p, gradients)
    raise RuntimeError(f"not learned in {settings.most_steps} steps: raise most_steps or H")


def main() -> None:
    p = train(QUESTIONS, Settings())
    words = vocabulary(QUESTIONS)
    print()
    for question in QUESTIONS:
        print(f"{question}? {answer(p, question, words)}")


if __name__ == "__main__":
    main()
