"""The question-answering example: its gradients, its clipping, and that it learns."""

import numpy as np
import pytest
import torch

import question_answering as qa
from question_answering import QUESTIONS, Parameters, Settings

WORDS = qa.vocabulary(QUESTIONS)
BATCH = qa.encode(QUESTIONS, WORDS)


@pytest.fixture(scope="module")
def trained() -> Parameters:
    return qa.train(QUESTIONS, Settings())


def small_problem() -> tuple[Parameters, qa.Batch]:
    questions = {"who is there": "me", "is there me there": "there is"}
    words = qa.vocabulary(questions)
    rng = np.random.default_rng(2)
    return qa.initial_parameters(len(words), 3, 4, rng), qa.encode(questions, words)


def test_answers_all_its_questions(trained: Parameters):
    assert {q: qa.answer(trained, q, WORDS) for q in QUESTIONS} == QUESTIONS
    loss, _ = qa.loss_and_gradients(trained, BATCH)
    assert loss < Settings().loss_below


def test_untrained_it_does_not(trained: Parameters):
    p = qa.initial_parameters(len(WORDS), 16, 32, np.random.default_rng(0))
    assert [w.shape for w in p] == [w.shape for w in trained]
    assert sum(qa.answer(p, q, WORDS) == a for q, a in QUESTIONS.items()) == 0
    assert all(len(qa.answer(p, q, WORDS, longest=3).split()) <= 3 for q in QUESTIONS)


def test_the_early_word_decides(trained: Parameters):
    answers = {
        c: qa.answer(trained, f"what colour is the {c} on a clear day", WORDS)
        for c in ("sky", "grass", "snow")
    }
    assert len(set(answers.values())) == 3


@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds_learn_as_well(seed: int, trained: Parameters):
    p = qa.train(QUESTIONS, Settings(seed=seed))
    assert {q: qa.answer(p, q, WORDS) for q in QUESTIONS} == QUESTIONS
    assert p.embed.tobytes() != trained.embed.tobytes()


def test_gradients_like_finite_differences():
    p, batch = small_problem()
    _, gradients = qa.loss_and_gradients(p, batch)
    width = 1e-5
    for name, value, gradient in zip(Parameters._fields, p, gradients, strict=True):
        assert gradient.shape == value.shape
        for at in np.ndindex(value.shape):
            middle = value[at]
            value[at] = middle + width
            above, _ = qa.loss_and_gradients(p, batch)
            value[at] = middle - width
            below, _ = qa.loss_and_gradients(p, batch)
            value[at] = middle
            assert gradient[at] == pytest.approx((above - below) / (2 * width), abs=1e-8), name


def test_padding_and_the_question_itself_do_not_count():
    p, batch = small_problem()
    loss, gradients = qa.loss_and_gradients(p, batch)
    longer = qa.Batch(*(np.pad(a, ((0, 0), (0, 3))) for a in batch))
    longer_loss, longer_gradients = qa.loss_and_gradients(p, longer)
    assert longer_loss == pytest.approx(loss, rel=1e-12)
    for one, other in zip(gradients, longer_gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-14)
    said = np.where(batch.counted, batch.say, 0)
    assert qa.loss_and_gradients(p, batch._replace(say=said))[0] == loss


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_clipping_bounds_the_global_norm_and_keeps_the_direction(scale: float):
    p, batch = small_problem()
    _, gradients = qa.loss_and_gradients(p, batch)
    gradients = Parameters(*(scale * g for g in gradients))
    flat = np.concatenate([g.ravel() for g in gradients])
    clipped, norm = qa.clipped(gradients, limit=0.01)
    after = np.concatenate([g.ravel() for g in clipped])
    assert norm == pytest.approx(np.linalg.norm(flat), rel=1e-12)
    assert np.linalg.norm(after) == pytest.approx(min(norm, 0.01), rel=1e-12)
    np.testing.assert_allclose(after / np.linalg.norm(after), flat / norm, rtol=0, atol=1e-12)
    if norm <= 0.01:
        assert np.array_equal(after, flat)


def test_trained_again_it_is_the_same_and_no_step_sees_more_than_the_clip_norm(
    trained: Parameters, monkeypatch: pytest.MonkeyPatch
):
    seen = []

    class Recorded(qa.Adam):
        def step(self, p: Parameters, gradients: Parameters) -> Parameters:
            seen.append(np.sqrt(sum((g**2).sum() for g in gradients)))
            return super().step(p, gradients)

    monkeypatch.setattr(qa, "Adam", Recorded)
    again = qa.train(QUESTIONS, Settings())
    assert [w.tobytes() for w in again] == [w.tobytes() for w in trained]
    limit = Settings().clip_norm
    assert max(seen) <= limit * (1 + 1e-12)
    assert seen[0] == pytest.approx(limit, rel=1e-12)
    assert seen[-1] < limit / 2


def test_adam_like_torchs():
    p, batch = small_problem()
    adam = qa.Adam(p, learning_rate=0.01)
    tensors = [torch.nn.Parameter(torch.from_numpy(w.copy())) for w in p]
    theirs = torch.optim.Adam(tensors, lr=0.01)
    for _ in range(5):
        _, gradients = qa.loss_and_gradients(p, batch)
        for tensor, g in zip(tensors, gradients, strict=True):
            tensor.grad = torch.from_numpy(g)
        theirs.step()
        p = adam.step(p, gradients)
        for tensor, w in zip(tensors, p, strict=True):
            np.testing.assert_allclose(w, tensor.detach().numpy(), rtol=0, atol=1e-12)


def test_unknown_word(trained: Parameters):
    with pytest.raises(ValueError, match="unknown word 'cat': use the words") as raised:
        qa.answer(trained, "how many legs does a cat have", WORDS)
    assert "\n" not in str(raised.value)


def test_says_so_when_it_has_not_learned():
    with pytest.raises(RuntimeError, match="not learned in 3 steps"):
        qa.train(QUESTIONS, Settings(most_steps=3))
