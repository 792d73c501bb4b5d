
for (const node of $$(".needs-script")) node.hidden = false;
const trials = data.trials.map((values) => Object.fromEntries(data.fields.map((name, i) => [name, values[i]])));

// --- numbers for people ------------------------------------------------------------------------------------------
const digits = (n) => new Intl.NumberFormat("en", { maximumSignificantDigits: n });
const [three, four] = [digits(3), digits(4)], whole = new Intl.NumberFormat("en");
const formats = {
  score: (v) => (data.percent ? `${(100 * v).toFixed(2)} %` : v.toFixed(4).replace("-", "−")),
  loss: (v) => four.format(v),
  learning_rate: (v) => three.format(v),
  seconds: (v) => `${v < 10 ? three.format(Math.round(v * 100) / 100) : whole.format(Math.round(v))} s`,
};
const large = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });
const text = (key, value) => (value === null ? "–" : (formats[key] ?? ((v) => large.format(v)))(value));

function make(tag, className = "", content = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = content;
  return node;
}
