"""Augmentation: every operation against SciPy, Pillow or Python's colorsys, on real pixels."""

import cmath
import colorsys
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage
from sklearn.datasets import load_sample_image

from data import augmentation
from errors import UserError

COUNT = 400


def real_photo(height=40, width=40):
    """Part of a photo that scikit-learn comes with, as uint8 [H, W, 3]."""
    photo = Image.fromarray(load_sample_image('china.jpg')).crop((100, 60, 420, 380))
    return np.asarray(photo.resize((width, height), Image.Resampling.LANCZOS))


PHOTO = real_photo()
LEVELS = PHOTO / np.float32(255)
MANY = jnp.asarray(np.repeat(LEVELS[None], COUNT, axis=0))
KEYS = jax.random.split(jax.random.key(0), COUNT)


def augmented(policy, images=MANY):
    return np.asarray(augmentation.augment(images, KEYS[: len(images)], augmentation.parse(policy)))


def warped(matrix, shift, fill, levels=LEVELS):
    return np.asarray(
        augmentation.warp(
            jnp.asarray(levels)[None], jnp.float32(matrix)[None], jnp.float32(shift)[None], fill
        )[0]
    )


@pytest.mark.parametrize(('fill', 'mode'), [('reflect', 'reflect'), ('edge', 'nearest')])
@pytest.mark.parametrize('size', [(40, 40), (31, 52)])
def test_warps_agree_with_scipy(fill, mode, size):
    levels = real_photo(*size) / np.float32(255)
    centre = (np.array(size) - 1) / 2
    for seed in range(5):
        generator = np.random.default_rng(seed)
        matrix = np.eye(2) + 0.4 * generator.standard_normal((2, 2))
        shift = 8 * generator.standard_normal(2)
        offset = centre + shift - matrix @ centre
        expected = np.stack(
            [ndimage.affine_transform(levels[..., c], matrix, offset, order=1, mode=mode)
             for c in range(3)], -1,
        )  # fmt: skip
        np.testing.assert_allclose(warped(matrix, shift, fill, levels), expected, atol=2e-4)


def test_black_lies_outside():
    shown = warped(np.eye(2), (0, 10), 'black')
    np.testing.assert_allclose(shown[:, :30], LEVELS[:, 10:], atol=1e-6)
    assert (shown[:, 30:] == 0).all()


def test_flips_and_shifts_by_whole_pixels_are_exact():
    flipped = augmented('horizontal_flip=0.5,vertical_flip=0.25')
    versions = {
        (rows, columns): (flipped == LEVELS[::rows, ::columns]).all(axis=(1, 2, 3))
        for rows in (1, -1) for columns in (1, -1)
    }  # fmt: skip
    counts = {kind: int(same.sum()) for kind, same in versions.items()}
    assert sum(counts.values()) == COUNT
    assert counts[1, -1] + counts[-1, -1] == pytest.approx(200, abs=40)
    assert counts[-1, 1] + counts[-1, -1] == pytest.approx(100, abs=35)
    shifted = augmented('padded_crop=2,fill=edge')
    padded = np.pad(LEVELS, ((2, 2), (2, 2), (0, 0)), mode='edge')
    crops = {
        (i, j): int((shifted == padded[i : i + 40, j : j + 40]).all(axis=(1, 2, 3)).sum())
        for i in range(5) for j in range(5)
    }  # fmt: skip
    assert sum(crops.values()) == COUNT
    assert min(crops.values()) >= 4


def fitted(changed):
    """Returns the affine map that best explains where a ramp's pixels came from."""
    ramps = np.stack(np.meshgrid(np.arange(40.0), np.arange(40.0), indexing='ij'), -1) / 64
    moved = augmented(changed, jnp.asarray(np.repeat(ramps[None], COUNT, 0), jnp.float32)) * 64
    inner = np.s_[:, 15:25, 15:25]
    places = np.stack(np.meshgrid(np.arange(15.0, 25), np.arange(15.0, 25), indexing='ij'), -1)
    design = np.concatenate([places.reshape(-1, 2) - 19.5, np.ones((100, 1))], 1)
    solved = np.linalg.lstsq(design, moved[inner].reshape(COUNT, 100, 2).transpose(1, 0, 2)
                             .reshape(100, -1), rcond=None)[0]  # fmt: skip
    parameters = solved.reshape(3, COUNT, 2).transpose(1, 2, 0)
    return parameters[:, :, :2], parameters[:, :, 2] - 19.5


def test_rotation_is_within_its_angle_and_turns_only():
    matrix, shift = fitted('rotation=20')
    angle = np.degrees(np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0]))
    assert 18 < abs(angle).max() <= 20.1
    np.testing.assert_allclose(np.linalg.det(matrix), 1, atol=1e-3)
    np.testing.assert_allclose(shift, 0, atol=1e-3)


def test_zoom_shear_and_translation_are_within_their_bounds():
    matrix, _ = fitted('zoom=0.25')
    assert 1.2 < matrix[:, 0, 0].max() <= 1.251
    assert 0.8 - 1e-3 <= matrix[:, 0, 0].min() < 0.82
    np.testing.assert_allclose(matrix[:, 0, 0], matrix[:, 1, 1], atol=1e-3)
    matrix, _ = fitted('shear=10')
    assert 9 < np.degrees(np.arctan(abs(matrix[:, 0, 1]).max())) <= 10.1
    np.testing.assert_allclose(matrix[:, 0, 0], 1, atol=1e-3)
    matrix, shift = fitted('translation=0.1')
    assert 3.6 < abs(shift).max() <= 4.01
    np.testing.assert_allclose(matrix, np.eye(2)[None].repeat(COUNT, 0), atol=1e-3)


def test_large_shears_do_not_mirror():
    draws = augmentation._draw(KEYS, augmentation.parse('shear=60'))
    matrix, _ = augmentation._affine(draws, augmentation.parse('shear=60'), (40, 40))
    np.testing.assert_allclose(np.linalg.det(np.asarray(matrix)), 1, atol=1e-3)


@pytest.mark.parametrize('name', ['brightness', 'contrast', 'saturation'])
def test_changes_that_add_up_never_invert_an_image(name):
    operation = getattr(augmentation, name)
    least, beyond = (operation(MANY[:1], jnp.float32([change])) for change in (-0.95, -1.7))
    np.testing.assert_allclose(beyond, least, atol=1e-6)


def test_a_resized_crop_shows_a_part_of_the_asked_area_and_nothing_outside():
    matrix, shift = fitted('resized_crop=0.3')
    area, aspect = np.linalg.det(matrix), matrix[:, 1, 1] / matrix[:, 0, 0]
    assert 0.28 < area.min() < 0.4
    assert area.max() <= 1.001
    assert 3 / 4 - 1e-3 <= aspect.min() < aspect.max() <= 4 / 3 + 1e-3
    reach = abs(shift) + np.stack([matrix[:, 0, 0], matrix[:, 1, 1]], 1) * 20
    assert reach.max() <= 20.01


ENHANCERS = {
    'brightness': ImageEnhance.Brightness,
    'contrast': ImageEnhance.Contrast,
    'saturation': ImageEnhance.Color,
}


@pytest.mark.parametrize('name', ENHANCERS)
@pytest.mark.parametrize('change', [-0.6, -0.1, 0.0, 0.3, 0.9])
def test_colour_agrees_with_pillow(name, change):
    expected = np.asarray(ENHANCERS[name](Image.fromarray(PHOTO)).enhance(1 + change))
    got = getattr(augmentation, name)(jnp.asarray(LEVELS)[None], jnp.float32([change]))[0]
    np.testing.assert_allclose(255 * np.asarray(got), expected, atol=1.6)


@pytest.mark.parametrize('turn', [-0.2, 0.05, 0.5])
def test_hue_agrees_with_colorsys(turn):
    got = np.asarray(augmentation.hue(jnp.asarray(LEVELS)[None], jnp.float32([turn]))[0])
    angle = 2 * math.pi * turn
    for place in ((0, 0), (10, 30), (20, 20), (39, 5)):
        y, i, q = colorsys.rgb_to_yiq(*map(float, LEVELS[place]))
        turned = complex(i, q) * cmath.exp(1j * angle)
        expected = colorsys.yiq_to_rgb(y, turned.real, turned.imag)
        np.testing.assert_allclose(got[place], expected, atol=2e-3)


@pytest.mark.parametrize('name', ['brightness', 'contrast', 'saturation', 'hue'])
def test_colour_factors_fill_their_range(name):
    most = 0.3
    policy = augmentation.parse(f'{name}={most}')
    drawn = np.asarray(augmentation._draw(KEYS, policy)[name])
    assert -most <= drawn.min() < -0.9 * most
    assert 0.9 * most < drawn.max() <= most
    assert abs(drawn.mean()) < 0.1 * most
    grey = jnp.asarray(np.repeat(LEVELS[..., :1][None], COUNT, 0))
    changed = np.asarray(augmentation.augment(grey, KEYS, policy))
    assert (changed == np.asarray(grey)).all() == (name in ('saturation', 'hue'))


def test_noise_has_its_deviation():
    grey = jnp.full((COUNT, 16, 16, 1), 0.5)
    noisy = augmented('noise=0.1', grey)
    assert noisy.std() == pytest.approx(0.1, rel=0.02)
    assert noisy.mean() == pytest.approx(0.5, abs=0.002)
    assert not np.array_equal(noisy[0], noisy[1])


def test_erasing_lays_a_rectangle_of_the_mean_colour():
    erased = augmented('erasing=0.5')
    changed = (erased != LEVELS).any(axis=-1)
    share = changed.mean(axis=(1, 2))
    assert (share > 0).mean() == pytest.approx(0.5, abs=0.08)
    assert share.max() <= 0.34
    for image, mask in zip(erased, changed, strict=True):
        if mask.any():
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            inside = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert np.ptp(inside.reshape(-1, 3), axis=0).max() < 1e-6
            np.testing.assert_allclose(inside[0, 0], LEVELS.mean((0, 1)), atol=1e-5)


def mixed(policy, count=64):
    images = jnp.asarray(np.random.default_rng(0).random((count, 8, 8, 3)), jnp.float32)
    targets = jax.nn.one_hot(jnp.arange(count) % 4, 4)
    made = augmentation.mix(images, targets, KEYS[:count], augmentation.parse(policy))
    neighbours = np.arange(count) ^ 1
    return np.asarray(images), neighbours, *map(np.asarray, made)


def test_mixup_is_the_weighted_mean_of_neighbours():
    images, neighbours, made, targets = mixed('mixup=0.4')
    own = targets[np.arange(64), np.arange(64) % 4]
    assert own.min() < 0.1
    assert own.max() > 0.9
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
    share = own[:, None, None, None]
    np.testing.assert_allclose(made, share * images + (1 - share) * images[neighbours], atol=1e-5)


def test_cutmix_weighs_by_the_area_that_was_pasted():
    images, neighbours, made, targets = mixed('cutmix=1')
    pasted = (made == images[neighbours]).all(-1)
    assert ((made == images).all(-1) ^ pasted).all()
    own = targets[np.arange(64), np.arange(64) % 4]
    np.testing.assert_allclose(own, 1 - pasted.mean((1, 2)), atol=1e-6)
    assert pasted.mean() > 0.1


def test_with_both_each_image_gets_one_of_the_two():
    images, neighbours, made, _ = mixed('mixup=1,cutmix=1')
    whole = ((made == images) | (made == images[neighbours])).all(axis=(1, 2, 3))
    assert 16 < whole.sum() < 48


def test_randaugment_applies_as_many_operations_as_asked():
    policy = augmentation.parse('randaugment=2,magnitude=0.5')
    draws = augmentation._draw(KEYS, policy)
    active = np.stack([np.asarray(draws[name]) != 0 for name in augmentation._STRONGEST])
    assert (active.sum(axis=0) == 2).all()
    assert active.sum(axis=1).min() > COUNT * 2 / 9 * 0.6
    sizes = {name: np.abs(np.asarray(draws[name])).max() for name in augmentation._STRONGEST}
    for name, strongest in augmentation._STRONGEST.items():
        assert sizes[name] == pytest.approx(strongest / 2)
    assert not np.array_equal(augmented('randaugment=2'), np.asarray(MANY))


@pytest.mark.parametrize('policy', [*augmentation.PRESETS, 'photos,randaugment=3,noise=0.1'])
def test_every_policy_keeps_shape_and_range_and_follows_the_key(policy):
    levels = MANY[:32]
    once, again = augmented(policy, levels), augmented(policy, levels)
    np.testing.assert_array_equal(once, again)
    assert once.shape == levels.shape
    assert once.min() >= 0
    assert once.max() <= 1
    assert np.array_equal(once, np.asarray(levels)) == (policy == 'none')
    # An image's draw follows its own key, not its neighbours or the size of the batch.
    parsed = augmentation.parse(policy)
    alone = np.asarray(augmentation.augment(levels[3:4], KEYS[3:4], parsed))
    np.testing.assert_allclose(alone[0], once[3], atol=1e-6)


def test_draws_do_not_depend_on_what_else_is_on():
    first = augmentation._draw(KEYS, augmentation.parse('rotation=10'))
    second = augmentation._draw(KEYS, augmentation.parse('photos,rotation=10,erasing=1,mixup=1'))
    np.testing.assert_array_equal(first['rotation'], second['rotation'])


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('fotos', r"'fotos' is no preset .* Did you mean 'photos'"),
        ('rotate=5', "Did you mean 'rotation'"),
        ('rotation', 'write rotation=VALUE'),
        ('rotation=999', 'rotation must be between 0 and 180'),
        ('zoom=nan', 'zoom must be between'),
        ('photos=3', 'the preset photos takes no value'),
        ('randaugment=1.5', 'is a whole number'),
        ('randaugment=two', 'randaugment must be between'),
        ('zoom=big', "it is 'big'"),
        ('fill=white', 'fill is one of reflect, edge, black'),
    ],
)
def test_mistakes_in_a_policy_are_named(text, expected):
    with pytest.raises(UserError, match=expected):
        augmentation.parse(text)


def test_what_comes_later_wins_and_a_description_reads_back():
    policy = augmentation.parse('photos, rotation=0, hue=0.1,fill=edge')
    assert (policy['rotation'], policy['hue'], policy['horizontal_flip']) == (0, 0.1, 0.5)
    assert policy.fill == 'edge'
    assert augmentation.parse(augmentation.describe(policy)) == policy
    assert augmentation.describe(augmentation.parse('none')) == 'none'
