#!/usr/bin/env python3
"""The workload `augment` on torchvision's transforms v2: the same photographs and steps, in uint8 as torchvision advises.

Pictures are decoded before. `torchvision-v2` shares every operation among the threads, `torchvision-v2-2proc` gives
pictures to as many processes.

Use: python3 augment.py FOLDER [PEER]     (shared/peers, whose measuring it uses; BENCH_ROOT as there)
"""
import sys

sys.path.insert(0, sys.argv[1])
import bench  # noqa: E402,F401  sets the number of threads
import torch  # noqa: E402
from common import DATA, THREADS, measure, report_rate  # noqa: E402
from torchvision.io import ImageReadMode, read_image  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

peer = sys.argv[2] if len(sys.argv) > 2 else "torchvision-v2"
files = sorted((DATA / "coco128-street").rglob("*.jpg"))
photos = [read_image(str(file), ImageReadMode.RGB) for file in files]
augment = v2.Compose([
    v2.Resize((224, 224), antialias=True),
    v2.RandomResizedCrop(224, scale=(0.64, 1.0), ratio=(1.0, 1.0), antialias=True),
    v2.RandomHorizontalFlip(),
    v2.RandomRotation(15, interpolation=v2.InterpolationMode.BILINEAR),
    v2.ColorJitter(0.3, 0.3, 0.3),
    v2.GaussianBlur(7, sigma=(0.01, 1.0)),
    v2.ToDtype(torch.float32, scale=True),
    v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
])


class Photos(torch.utils.data.Dataset):
    def __len__(self):
        return len(photos)

    def __getitem__(self, i):
        return augment(photos[i])


if peer.endswith("2proc"):
    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(Photos(), batch_size=32, num_workers=THREADS, persistent_workers=True)
    run = lambda: [batch.shape for batch in loader]  # noqa: E731
else:
    torch.set_num_threads(THREADS)
    run = lambda: torch.stack([augment(photo) for photo in photos])  # noqa: E731
report_rate(peer, "augment", measure(run), len(photos), "images/s", ("torchvision", "torch"))
