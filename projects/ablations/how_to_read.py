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
  the cases. Some verdicts of so many will be wrong.
* A difference can be small for lack of room: read it beside the value of the
  first arm and beside that of the truth.
* `desk` starts from ViT weights of another patch size (`desk_start.py`). Arms
  without Stage I keep them in Stage II, where `und` and the ViT are frozen; any
  training of the ViT could therefore help as Stage I does. `vqa`, `und_trained`
  and `coarse` are there to tell these apart.
* An arm with one task less asks the others more often: steps are equal,
  questions of a task are not.
* `nearer to the source` counts copies, and outputs that are hardly the target
  yet, as reversed. `inverted` counts those alone that the swapped instruction
  takes to the target; it is no number of the plan.
* `drift, slices` grows for smooth outputs, too: PET, which all arms blur, fits
  a slice further away.
* Every held-out route has its reverse among the trained ones.
* With guidance, the use of words includes what guidance adds."""
