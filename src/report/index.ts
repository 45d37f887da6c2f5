// Charts as SVG and pages of them, in one file and without a network.
export { type BarChart, barChart } from './bar-chart.ts'
export { type HeatMap, heatMap } from './heat-map.ts'
export { type Interval, type IntervalChart, intervalChart } from './interval-chart.ts'
export { type LineChart, type LineSeries, lineChart } from './line-chart.ts'
