// nodule_diag.h for C#. The CT's voxels must stay where they are (GCHandle, or fixed) until CT is disposed of.
//   using (var model = new NoduleDiag.Model("fused.onnx"))
//   using (var ct = new NoduleDiag.CT(volume)) { var nodule = model.Predict(ct, x, y, z); }
using System;
using System.Runtime.InteropServices;

namespace NoduleDiag
{
    [StructLayout(LayoutKind.Sequential)]
    public struct Volume
    {
        public IntPtr Hu;        // short or float, the first axis of Size fastest
        public IntPtr LungMask;  // or IntPtr.Zero
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 3)] public long[] Size;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 3)] public double[] SpacingMm;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 3)] public double[] OriginMm;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 9)] public double[] Direction;
        public int HuType;       // 0: short, 1: float
        public int Reserved;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct Diagnosis
    {
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 3)] public double[] PositionMm;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 9)] public double[] Axes;
        public double Malignancy, Logit, ExpertScore, Presence, CamNodule, CamBackground, VolumeMm3, DiameterMm;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 4096)] public float[] Segmentation;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 4096)] public float[] Cam;
        public uint Warnings;
        public uint Reserved;
    }

    public sealed class Error : Exception
    {
        public readonly int Status;
        public readonly string Code;
        internal Error(int status, string code, string message) : base(message) { Status = status; Code = code; }
    }

    internal static class Native
    {
        private const string Library = "nodule_diag";
        [DllImport(Library)] internal static extern int nd_model_open(byte[] path, int threads, out IntPtr model);
        [DllImport(Library)] internal static extern void nd_model_close(IntPtr model);
        [DllImport(Library)] internal static extern int nd_ct_open(ref Volume volume, out IntPtr ct);
        [DllImport(Library)] internal static extern void nd_ct_close(IntPtr ct);
        [DllImport(Library)] internal static extern int nd_predict(IntPtr model, IntPtr ct, double[] position, out Diagnosis diagnosis);
        [DllImport(Library)] internal static extern IntPtr nd_error_code();
        [DllImport(Library)] internal static extern IntPtr nd_error_message();

        internal static void Require(int status)
        {
            if (status != 0)
                throw new Error(status, Marshal.PtrToStringAnsi(nd_error_code()), Marshal.PtrToStringAnsi(nd_error_message()));
        }
    }

    public sealed class CT : IDisposable
    {
        internal IntPtr Handle;
        public CT(Volume volume) { Native.Require(Native.nd_ct_open(ref volume, out Handle)); }
        public void Dispose() { Native.nd_ct_close(Handle); Handle = IntPtr.Zero; }
    }

    public sealed class Model : IDisposable
    {
        private IntPtr handle;
        public Model(string path, int threads = 0)
        {
            Native.Require(Native.nd_model_open(System.Text.Encoding.UTF8.GetBytes(path + "\0"), threads, out handle));
        }
        public Diagnosis Predict(CT ct, double x, double y, double z)
        {
            Diagnosis found;
            Native.Require(Native.nd_predict(handle, ct.Handle, new[] { x, y, z }, out found));
            return found;
        }
        public void Dispose() { Native.nd_model_close(handle); handle = IntPtr.Zero; }
    }
}
