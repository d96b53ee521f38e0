"""Times, memory and the JSON lines in which they are written."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.measuring import (
  Seconds,
  append_record,
  median_seconds,
  process_peak_gb,
)


def device_name(device: torch.device) -> str:
  """The GPU's name, or the processor's."""
  if device.type == 'cuda':
    return torch.cuda.get_device_name(device)
  return f'{platform.machine()} CPU, {torch.get_num_threads()} threads'


def synchronise(device: torch.device) -> None:
  """Waits for all work on a GPU."""
  if device.type == 'cuda':
    torch.cuda.synchronize(device)


def seconds(
  function: Callable[[], Any],
  device: torch.device,
  *,
  repeats: int,
  warmups: int = 3,
) -> Seconds:
  """The median times of a call, the device's work included."""
  return median_seconds(
    function,
    repeats=repeats,
    warmups=warmups,
    wait=lambda _: synchronise(device),
  )


def kernel_seconds(
  function: Callable[[], Any],
  device: torch.device,
  *,
  repeats: int,
  warmups: int = 3,
) -> float:
  """The median time; on a GPU by CUDA events, without launch latency."""
  if device.type != 'cuda':
    return seconds(function, device, repeats=repeats, warmups=warmups).wall
  for _ in range(warmups):
    function()
  events = []
  for _ in range(repeats):
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    events.append((start, end))
  torch.cuda.synchronize(device)
  return statistics.median(a.elapsed_time(b) for a, b in events) / 1e3


def reset_peak(device: torch.device) -> None:
  """Resets the measurement of `peak_gb`; not possible on a CPU."""
  if device.type == 'cuda':
    torch.cuda.reset_peak_memory_stats(device)


def peak_gb(device: torch.device) -> float:
  """Most memory allocated: on a GPU by tensors, on a CPU by the process."""
  if device.type == 'cuda':
    return torch.cuda.max_memory_allocated(device) / 1e9
  return process_peak_gb()


class Records:
  """Prints records and appends them to a file, one JSON object a line."""

  def __init__(self, path: str, device: torch.device):
    self.path = path
    self.common = {
      'device': device_name(device),
      'torch': torch.__version__,
    }

  def add(self, **values: Any) -> None:
    record = values | self.common
    print(json.dumps(record), flush=True)
    append_record(self.path, record)
