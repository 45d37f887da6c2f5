// PCG hash of O'Neill, 2014, as a uniform number in (0, 1): below 1, to which the highest would round.
fn uniform_number(seed: u32, i: u32) -> f32 {
  let state = (i ^ (seed * 0x9e3779b9u)) * 747796405u + 2891336453u;
  let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
  return min((f32(((word >> 22u) ^ word) >> 8u) + 0.5) / 16777216.0, 0.99999994);
}
