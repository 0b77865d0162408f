import json
import os
import statistics
import subprocess
import sys

from conftest import ROOT


def test_ours_beside_a_peer_and_one_that_is_not_installed(tmp_path):
    (tmp_path / 'torch.py').write_text(
        "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')"
    )
    command = [
        sys.executable, 'benchmarks/train_step.py', '--only=plain', '--peers=PyTorch,JAX',
        '--batch_size=8', '--rounds=2', '--round_seconds=0.02', f'--json={tmp_path}/out.json',
    ]  # fmt: skip
    environment = os.environ | {'PYTHONPATH': str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for absent in ('PyTorch eager', 'PyTorch compiled'):
        remedy = 'there is no torch (pip install -r requirements-bench.txt)'
        assert f'{absent} is left out: {remedy}' in done.stdout

    figures = json.loads((tmp_path / 'out.json').read_text())
    row = figures['rows']['plain 3x32 at 32x32']
    assert set(row['contenders']) == {'Leadline', 'Keras JAX'}
    ours, peer = row['contenders'].values()
    peak = max(figures['matrix_product']['float32']['flops_per_second'].values())
    # 3x3 kernels on maps of 32, 16 and 8 pixels, and 10 logits; a multiply-add counts as two.
    forward = 2 * 9 * (32**2 * 3 * 32 + 16**2 * 32 * 64 + 8**2 * 64 * 128) + 2 * 128 * 10
    for contender in (ours, peer):
        assert contender['parameters'] == 94_762
        assert contender['peak_bytes'] > 1e8
        each = [r['seconds'] / r['steps'] for r in contender['rounds']]
        assert len(each) == 2
        assert contender['step_seconds'] == statistics.median(each)
        speed = 3 * forward * 8 / contender['step_seconds']
        assert abs(contender['share_of_peak'] * peak / speed - 1) < 1e-9
    assert peer['ratio'] == peer['step_seconds'] / ours['step_seconds']
    line = next(line for line in done.stdout.splitlines() if line.startswith('Keras JAX'))
    assert line.split()[-1] == f'{peer["ratio"]:.2f}'
