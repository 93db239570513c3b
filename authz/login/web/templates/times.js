"use strict";
for (const each of document.querySelectorAll("time[datetime]")) {
  const moment = new Date(each.dateTime);
  if (Number.isNaN(moment.getTime())) continue;
  each.title = each.textContent;
  each.textContent = new Intl.DateTimeFormat("en-GB", {
    day: "2-digit", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit",
    hourCycle: "h23", timeZoneName: "short",
  }).format(moment);
}
