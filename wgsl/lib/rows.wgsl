// How rows are dealt out, and sums and maxima over a row. `lanes` invocations share a row and walk its parts in turn: all
// of a workgroup (`group_size` = `lanes`), or 1, where `group_size` rows go to a workgroup and nothing needs a barrier.
// Every invocation must call the sums and maxima, those past the last row too: they get a row without parts.
import package::lib::grid::flat_workgroup;

override lanes: u32 = 64;
override group_size: u32 = 64;
var<workgroup> shares: array<f32, lanes>;

// The row of an invocation, which may lie past the end, and its first part.
struct Place { row: u32, lane: u32 }

fn place_of(group: vec3u, groups: vec3u, local: u32) -> Place {
  let flat = flat_workgroup(group, groups);
  if (lanes == group_size) { return Place(flat, local); } // so that compilers see that the row is one for all
  return Place(flat * (group_size / lanes) + local / lanes, local % lanes);
}

fn sum_lanes(lane: u32, value: f32) -> f32 {
  if (lanes == 1u) { return value; }
  workgroupBarrier(); // the last result may still be being read
  shares[lane] = value;
  if (lanes <= 16u) {
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < lanes; i++) { sum += shares[i]; }
    return sum;
  }
  for (var half = lanes / 2u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (lane < half) { shares[lane] += shares[lane + half]; }
  }
  workgroupBarrier();
  return shares[0];
}

fn max_lanes(lane: u32, value: f32) -> f32 {
  if (lanes == 1u) { return value; }
  workgroupBarrier();
  shares[lane] = value;
  if (lanes <= 16u) {
    workgroupBarrier();
    var most = value;
    for (var i = 0u; i < lanes; i++) { most = max(most, shares[i]); }
    return most;
  }
  for (var half = lanes / 2u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (lane < half) { shares[lane] = max(shares[lane], shares[lane + half]); }
  }
  workgroupBarrier();
  return shares[0];
}
