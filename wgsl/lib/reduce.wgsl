// Sums and maxima over one workgroup of 64 invocations. Every invocation must call them, and each gets the result.
const lanes = 64u;
var<workgroup> partial: array<f32, 64>;

fn sum_workgroup(lane: u32, value: f32) -> f32 {
  workgroupBarrier(); // the last result may still be being read
  partial[lane] = value;
  for (var half = lanes / 2u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (lane < half) { partial[lane] += partial[lane + half]; }
  }
  workgroupBarrier();
  return partial[0];
}

fn max_workgroup(lane: u32, value: f32) -> f32 {
  workgroupBarrier();
  partial[lane] = value;
  for (var half = lanes / 2u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (lane < half) { partial[lane] = max(partial[lane], partial[lane + half]); }
  }
  workgroupBarrier();
  return partial[0];
}
