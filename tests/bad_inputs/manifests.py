"""Manifests of a batch that must be refused: all their faults at once, before any CT is opened."""

from bad_inputs.positions import BadPositions

HEAD = "path,x,y,z,id,acquisition,space\n"

MANIFESTS = (
    BadPositions("empty.csv", "an empty manifest", "", "no nodule"),
    BadPositions("rows.csv", "a manifest without rows", HEAD, "no nodule"),
    BadPositions("column.csv", "a manifest without a column", "path,x,y\na.nii,1,2\n", "no column z"),
    BadPositions("named.csv", "a column that a result is called", "path,x,y,z,error\na.nii,1,2,3,-\n", "rename it"),
    BadPositions(
        "faults.csv",
        "several faults",
        f"{HEAD}a.nii,one,2,3,,,\n,1,2,3,,,\nb.nii,1,2\n",
        "line 2: x = 'one' is not a finite number; line 3: it names no CT; line 4: 3 cells",
    ),
    BadPositions("twice.csv", "an id twice", f"{HEAD}a.nii,1,2,3,n,,\na.nii,4,5,6,n,,\n", "the id 'n' stands more"),
    BadPositions("number.csv", "an acquisition that is not a number", f"{HEAD}a,1,2,3,,two,\n", "acquisition = 'two'"),
    BadPositions("space.csv", "an unknown frame", f"{HEAD}a.nii,1,2,3,,,mni\n", "none of lps, ras, voxel"),
    BadPositions("frames.csv", "two frames for a CT", f"{HEAD}a,1,2,3,m,,ras\na,4,5,6,n,,\n", "for the same CT"),
)
