// The library from C#: a made-up CT with a ball of tissue in air, and what the model says of it. Sample.exe FUSED.onnx
using System;
using System.Globalization;
using System.Runtime.InteropServices;

internal static class Sample
{
    private const int Size = 64;

    private static int Main(string[] words)
    {
        var hu = new short[Size * Size * Size];
        for (int z = 0, i = 0; z < Size; ++z)
            for (int y = 0; y < Size; ++y)
                for (int x = 0; x < Size; ++x, ++i)
                {
                    int dx = x - 32, dy = y - 32, dz = z - 32;
                    hu[i] = (short)(dx * dx + dy * dy + dz * dz < 64 ? 40 : -860);
                }
        var pinned = GCHandle.Alloc(hu, GCHandleType.Pinned);
        try
        {
            var volume = new NoduleDiag.Volume
            {
                Hu = pinned.AddrOfPinnedObject(),
                Size = new long[] { Size, Size, Size },
                SpacingMm = new double[] { 1, 1, 1 },
                OriginMm = new double[] { -32, -32, -32 },
                Direction = new double[] { 1, 0, 0, 0, 1, 0, 0, 0, 1 },
            };
            using (var model = new NoduleDiag.Model(words[0], 1))
            using (var ct = new NoduleDiag.CT(volume))
            {
                var found = model.Predict(ct, 0, 0, 0);
                Console.WriteLine(string.Format(CultureInfo.InvariantCulture,
                    "malignancy {0:F3}, expert score {1:F2}, diameter {2:F1} mm",
                    found.Malignancy, found.ExpertScore, found.DiameterMm));
                model.Predict(ct, 1000, 0, 0); // outside: this throws
            }
        }
        catch (NoduleDiag.Error error)
        {
            Console.WriteLine(error.Code + ": " + error.Message);
            return error.Status;
        }
        finally
        {
            pinned.Free();
        }
        return 0;
    }
}
