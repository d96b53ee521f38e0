"""What a reader of the page of results has to know beside its numbers."""

RULE = """\
A difference has the sign of the claim: positive supports it. It is paired by
subject and averaged over seeds; [95 %]: bootstrap over the test subjects. The
rule of `plan.py` decides, in the first regime of a claim; the others show
whether it holds there too:

* **borne out**: the interval is above 0, and so is the difference of every
  seed;
* **refuted**: the interval is below the smallest difference of interest, and so
  is that of every seed. A positive difference can be refuted, if it is smaller;
* **not decided** otherwise, and with fewer than three seeds.

SSIM, shares and positions are x 100, in points; drift is in slices or mm."""
LIMITS = """\
* The interval is over subjects alone, and 12 of the 22 routes are those of six
  BraTS phantoms. It leaves out how much one training differs from the next,
  which the seeds show, so it covers the true difference in less than 95 % of
  the cases. With this many verdicts, some will be wrong.
* A difference can be small because the first arm is already near the ideal:
  read it beside the value of that arm.
* `desk` starts from ViT weights of another patch size (`desk_start.py`). Arms
  without Stage I keep them in Stage II, where `und` and the ViT are frozen, so
  any training of the ViT could help as Stage I does. The arm `vqa` and the
  regimes `und_trained` and `coarse` separate the two effects.
* An arm with one task less asks the others more often: steps are equal,
  questions of a task are not.
* `nearer to the source` counts copies, and outputs that are hardly the target
  yet, as reversed. `inverted` counts those alone that the swapped instruction
  takes to the target; it is no number of the plan.
* `control, own MI` asks the model itself: an arm that never learned MI answers
  badly, whatever it synthesises.
* `drift, slices` grows for smooth outputs, too: they can be most like a
  neighbour that shows less.
* Every held-out route has its reverse among the trained ones.
* With guidance, the use of words includes what guidance adds."""
