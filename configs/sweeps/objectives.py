"""What a sweep can aim at, and whether more of it is better."""

# Figures of the validation split, by their names in `result.json`; of classes, then of numbers.
MEASURED = {
    'validation_accuracy': True,
    'validation_balanced_accuracy': True,
    'validation_macro_f1': True,
    'validation_loss': False,
    'validation_rmse': False,
    'validation_mae': False,
    'validation_r2': True,
}
# What is known of a net before it is trained.
COSTS = {'parameters': False, 'flops': False, 'latency_ms': False, 'memory_mb': False}
TIMED = (
    'latency_ms',
    'memory_mb',
)  # Those that need a compiled program; the others are arithmetic.
OBJECTIVES: dict[str, bool] = MEASURED | COSTS


def names(objective: str) -> tuple[str, ...]:
    """Returns the names in `config.objective`, which are separated by commas."""
    return tuple(name.strip() for name in objective.split(','))
