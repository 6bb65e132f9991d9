"""Perturbed samples: the same in every batch, state and process."""

import numpy as np
import pytest
import torch

from lightning_tansens.estimators.calibrated import Contrast, Masked, Noise, Perturbed

X = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0))


def test_noise_has_the_size_that_is_asked_for():
    torch.manual_seed(0)
    sample = 5 + 2 * torch.randn(100_000)
    noise = Noise(0.25)(sample) - sample
    assert float(noise.std()) == pytest.approx(0.5, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)


def test_masked_entries_are_the_sample_s_mean():
    torch.manual_seed(0)
    sample = torch.arange(10_000.0)
    masked = Masked(0.25)(sample)
    assert float((masked == sample.mean()).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert bool(((masked == sample) | (masked == sample.mean())).all())


def test_contrast_keeps_the_mean_and_scales_the_deviation():
    changed = Contrast(0.25)(X[0])
    assert float(changed.mean()) == pytest.approx(float(X[0].mean()))
    assert float(changed.std()) == pytest.approx(0.25 * float(X[0].std()))


def test_a_sample_s_noise_depends_on_its_position_alone():
    perturb = Perturbed(Noise(1.0), seed=3)
    whole = perturb(X, range(6))
    assert torch.equal(perturb(X[4:], [4, 5]), whole[4:])
    assert torch.equal(perturb(X[[5, 1]], [5, 1]), whole[[5, 1]])
    twice = perturb(X[:1].expand(2, -1, -1), [0, 1])
    assert not torch.equal(twice[0], twice[1])
    assert not torch.equal(Perturbed(Noise(1.0), seed=4)(X, range(6)), whole)


def test_random_states_and_inputs_are_left_alone():
    def draws(sample):
        sample += torch.randn(()) + float(np.random.rand())
        return sample

    before, states = X.clone(), (torch.get_rng_state(), np.random.get_state()[1].copy())
    Perturbed(draws)(X, range(6))
    assert torch.equal(X, before)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()


def test_types_are_kept():
    assert Perturbed(Noise(1.0))(X.double(), range(6)).dtype == torch.float64
    assert Perturbed(lambda sample: sample.double())(X, range(6)).dtype == torch.float32


@pytest.mark.parametrize("inputs", [torch.zeros(2, 3).long(), [X], {"x": X}])
def test_inputs_that_are_no_numbers_are_refused(inputs):
    with pytest.raises(TypeError, match="copies: expected inputs that are one floating-point tensor"):
        Perturbed(Noise(1.0))(inputs, [0, 1])


@pytest.mark.parametrize("transform", [lambda sample: sample[0], lambda sample: 3.0])
def test_transforms_that_do_not_keep_the_shape_are_refused(transform):
    with pytest.raises(ValueError, match="to return a tensor of the sample's shape"):
        Perturbed(transform)(X, range(6))


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="scale: expected a finite number >= 0"):
        Noise(-1.0)
    with pytest.raises(ValueError, match="factor: expected a finite number >= 0"):
        Contrast(-1.0)
    with pytest.raises(ValueError, match="share: expected a number between 0 and 1, both excluded"):
        Masked(1.0)
