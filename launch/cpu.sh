#!/usr/bin/env bash
# Settings for models and volumes this small on a few CPU cores; sourced by the
# commands after launch/setup.sh.

# Many small products of matrices, which threads only slow down.
export OPENBLAS_NUM_THREADS=1
# Without XLA's newer fusions a step takes a fifth less time (docs/base.md). A
# flag that a version does not know would end every program, so it is tried.
plain='--xla_cpu_experimental_ynn_fusion_type='
if JAX_PLATFORMS=cpu XLA_FLAGS="$plain" \
  python -c 'import jax; jax.devices()' 2> /dev/null; then
  export XLA_FLAGS="${XLA_FLAGS:-} $plain"
fi
