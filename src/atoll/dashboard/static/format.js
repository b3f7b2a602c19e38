// Figures as people read them. What is not known says so, and is never 0.
"use strict";
const atoll = { NOT_KNOWN: "not known" };

atoll.whole = (count) => (count == null ? atoll.NOT_KNOWN : Math.round(count).toLocaleString("en-US"));

atoll.human = (count) => {
  if (count == null) return atoll.NOT_KNOWN;
  for (const [size, name] of [
    [1e12, " T"],
    [1e9, " G"],
    [1e6, " M"],
    [1e3, " k"],
  ]) {
    if (Math.abs(count) >= size) return `${Number((count / size).toPrecision(3))}${name}`;
  }
  return `${Number(count.toPrecision(3))}`;
};

atoll.bytes = (count) =>
  count == null ? atoll.NOT_KNOWN : `${atoll.human(count)}B`.replace(/(\d)B/, "$1 B");

atoll.fixed = (value, digits) => (value == null ? atoll.NOT_KNOWN : value.toFixed(digits));

atoll.percent = (share) =>
  share == null ? atoll.NOT_KNOWN : `${(100 * share).toFixed(share < 0.995 ? 1 : 0)} %`;

atoll.duration = (seconds) => {
  if (seconds == null) return atoll.NOT_KNOWN;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} days`;
};

atoll.clock = (seconds) => {
  if (seconds == null) return atoll.NOT_KNOWN;
  const at = new Date(1000 * seconds);
  if (Number.isNaN(at.getTime())) return atoll.NOT_KNOWN;
  const time = at.toLocaleTimeString("en-GB");
  return Date.now() - at < 20 * 3600e3 ? time : `${at.toLocaleDateString("en-CA")} ${time.slice(0, 5)}`;
};

atoll.count = (number, one, many) => `${atoll.whole(number)} ${number === 1 ? one : many}`;
