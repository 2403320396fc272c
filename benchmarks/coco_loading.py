"""Time and memory of reading annotations of the size of COCO train2017, from a synthetic file with polygons.

    python benchmarks/coco_loading.py [--images 118287] [--annotations 860001] [--points 26]

Writes the file to a temporary folder (about 450 MB at the defaults), reads it in a fresh process and prints seconds and
the largest resident memory of that process.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

READ = """
import resource, sys, time
from elastic_cnn.data.coco import read_annotations
start = time.perf_counter()
annotations = read_annotations(sys.argv[1])
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(f"{len(annotations)} images, {len(annotations.areas)} objects, {len(annotations.classes)} classes: "
      f"{seconds:.1f} s, {peak / 2**20:.2f} GiB at most")
"""


def write_annotations(path: Path, images: int, annotations: int, points: int) -> None:
    """A file of COCO's layout: 80 categories with gaps in their ids, polygons of about `points` corners, crowds."""
    random.seed(0)
    categories = [{"supercategory": "thing", "id": c, "name": f"class {c}"} for c in range(1, 91) if c % 9]
    ids = [category["id"] for category in categories]
    with path.open("w") as file:
        file.write('{"info": {"year": 2017}, "licenses": [], "categories": ' + json.dumps(categories) + ', "images": [')
        for i in range(images):
            entry = {
                "license": 4,
                "file_name": f"{4 * i + 1:012d}.jpg",
                "coco_url": f"http://images.cocodataset.org/train2017/{4 * i + 1:012d}.jpg",
                "height": 480,
                "width": 640,
                "date_captured": "2013-11-14 11:18:45",
                "flickr_url": f"http://farm6.staticflickr.com/5001/{i}_0.jpg",
                "id": 4 * i + 1,
            }
            file.write(", " * (i > 0) + json.dumps(entry))
        file.write('], "annotations": [')
        for k in range(annotations):
            crowd = k % 85 == 0
            corners = [round(random.random() * 640, 2) for _ in range(2 * random.randint(points // 2, points * 3 // 2))]
            annotation = {
                "segmentation": {"counts": [int(c) for c in corners], "size": [480, 640]} if crowd else [corners],
                "area": round(random.random() ** 4 * 90000 + 1, 4),
                "iscrowd": int(crowd),
                "image_id": 4 * random.randrange(images) + 1,
                "bbox": [round(random.random() * 300, 2) for _ in range(4)],
                "category_id": random.choice(ids),
                "id": k + 1,
            }
            file.write(", " * (k > 0) + json.dumps(annotation))
        file.write("]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=118_287)
    parser.add_argument("--annotations", type=int, default=860_001)
    parser.add_argument("--points", type=int, default=26, help="corners of a polygon, on average")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        write_annotations(path, args.images, args.annotations, args.points)
        print(f"{path.stat().st_size / 2**20:.0f} MiB of JSON")
        subprocess.run([sys.executable, "-c", READ, str(path)], check=True)


if __name__ == "__main__":
    main()
