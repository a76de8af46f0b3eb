"""The schedule of the bias-compensated loss: set by the trainer, kept with the run."""

import torch

from dense_imb.losses import BiasCompensatedLoss, bias_compensated_loss


def test_progress_is_kept_in_the_state():
    loss = BiasCompensatedLoss((90, 9, 1))
    loss.set_progress(0.5)
    resumed = BiasCompensatedLoss((90, 9, 1))
    resumed.load_state_dict(loss.state_dict())
    logits, target = torch.randn(4, 3, 5), torch.randint(0, 3, (4, 5))
    expected = bias_compensated_loss(logits, target, class_counts=(90, 9, 1), progress=0.5)
    torch.testing.assert_close(resumed(logits, target), expected)
    assert not torch.allclose(expected, BiasCompensatedLoss((90, 9, 1))(logits, target))


def test_compiled_once_for_every_progress():
    torch.compiler.reset()
    counts = (90, 9, 1)
    loss = BiasCompensatedLoss(counts)
    n_graphs = 0

    def backend(graph, _):
        nonlocal n_graphs
        n_graphs += 1
        return graph

    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    logits, target = torch.randn(4, 3, 5), torch.randint(0, 3, (4, 5))
    for progress in (0.0, 0.2, 0.7, 1.0):
        loss.set_progress(progress)
        expected = bias_compensated_loss(logits, target, class_counts=counts, progress=progress)
        torch.testing.assert_close(compiled(logits, target), expected)
    assert n_graphs == 1


def test_a_known_test_distribution_is_compensated_to():
    logits, target = torch.randn(6, 3), torch.randint(0, 3, (6,))
    like_training = BiasCompensatedLoss((90, 9, 1), (900, 90, 10))
    torch.testing.assert_close(
        like_training(logits, target), torch.nn.functional.cross_entropy(logits, target)
    )
