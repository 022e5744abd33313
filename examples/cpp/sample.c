/* The library from plain C: a made-up CT with a ball of tissue in air, and what the model says of it.
 *   sample_c FUSED.onnx
 */
#include "nodule_diag.h"

#include <stdio.h>
#include <stdlib.h>

enum { SIZE = 64 };

int main(int count, char **words) {
    static int16_t hu[SIZE * SIZE * SIZE];
    static nd_diagnosis found;
    const double position[3] = {0, 0, 0};
    nd_model *model = NULL;
    nd_ct *ct = NULL;
    nd_volume volume = {0};
    nd_status status;
    int x, y, z, i;

    if (count != 2) {
        fprintf(stderr, "sample_c FUSED.onnx\n");
        return ND_USAGE;
    }
    for (z = 0; z < SIZE; ++z)
        for (y = 0; y < SIZE; ++y)
            for (x = 0; x < SIZE; ++x) {
                const int dx = x - 32, dy = y - 32, dz = z - 32;
                hu[(z * SIZE + y) * SIZE + x] = (int16_t)(dx * dx + dy * dy + dz * dz < 64 ? 40 : -860);
            }
    volume.hu = hu;
    volume.hu_type = ND_INT16;
    for (i = 0; i < 3; ++i) {
        volume.size[i] = SIZE;
        volume.spacing_mm[i] = 1.0;
        volume.origin_mm[i] = -32.0;
        volume.direction[4 * i] = 1.0;
    }

    status = nd_model_open(words[1], 1, &model);
    if (status == ND_OK) status = nd_ct_open(&volume, &ct);
    if (status == ND_OK) status = nd_predict(model, ct, position, &found);
    if (status == ND_OK)
        printf("%s %s: malignancy %.3f, expert score %.2f, diameter %.1f mm\n", nd_model_says(model, "name"),
               nd_model_says(model, "version"), found.malignancy, found.expert_score, found.diameter_mm);
    else
        fprintf(stderr, "%s: %s\n", nd_error_code(), nd_error_message());
    nd_ct_close(ct);
    nd_model_close(model);
    return status;
}
