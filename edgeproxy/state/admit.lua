-- One batch: first what is given back and corrected, then the exchanges, each of them whole or not at all, in order.
--
-- ARGV[1], in MessagePack, a flat list: not_after, number of quotas, of settlements, of exchanges; then
--   quotas       kind, limit, window, burst, mitigation
--   settlements  number of changes, index of the marker in KEYS (0: none), lease; per change: quota, key, delta, stamp
--                (of LEASES: below 0 they are given back, above 0 so many places are prolonged)
--   exchanges    number of charges, lease; per charge: quota, key, cost
-- with quotas from 1, keys as indices of KEYS, leases from 1 (0: none) in ARGV[2], 16 bytes each. ARGV[3]: life of markers, ms.
-- Answers in MessagePack: now, whether it is too late (then no exchange was looked at); per exchange whether it is admitted,
-- and per charge its verdict: allowed, remaining, reset, retry, stamp.
local ask = cmsgpack.unpack(ARGV[1])
local values = redis.call('MGET', unpack(KEYS))
local not_after, quotas, settlements, exchanges = ask[1], ask[2], ask[3], ask[4]
local i = 5 + 5 * quotas

local function lease_name(n)
  return string.sub(ARGV[2], 16 * n - 15, 16 * n)
end

-- Position in `ask` of the numbers of quota q, whose key k is read if it was not.
local function ready(q, k)
  local p = 5 * q
  if not used[k] then
    open(k, values[k], ask[p], ask[p + 1], ask[p + 2], ask[p + 4])
  end
  return p
end

local function give_back(k, lease)
  local gone = redis.call('ZREM', KEYS[k + 1], lease)
  if gone == 0 then  -- one that took several places has a member for each
    while redis.call('ZREM', KEYS[k + 1], lease .. gone + 1) == 1 do
      gone = gone + 1
    end
  end
  used[k] = used[k] - gone
end

-- XX: what was given back, or has expired, is not revived.
local function prolong(k, p, lease, places)
  local expires = text(now + ask[p + 2])
  if places == 1 then
    redis.call('ZADD', KEYS[k + 1], 'XX', expires, lease)
  else
    for place = 1, min(places, ask[p + 1]) do
      redis.call('ZADD', KEYS[k + 1], 'XX', expires, lease .. place)
    end
  end
  redis.call('PEXPIRE', KEYS[k + 1], text(ceil(ask[p + 2] / 1000) + 1000))
end

-- What is owed is bounded: an upstream that tells of absurd usage must not lock a key for ever.
local function correct(k, p, delta, stamp)
  local kind, limit, window, burst = ask[p], ask[p + 1], ask[p + 2], ask[p + 3]
  delta = min(delta, OWED * limit)
  local most = (kind == GCRA and burst or limit) + OWED * limit
  if kind ~= GCRA then
    local age = floor(ats[k] / window) - floor(stamp / window)
    if age == 1 and kind == SLIDING then
      before[k] = max(before[k] + delta, 0)
      return
    elseif age > 0 then  -- that window is over: nothing is left to give back, and what is owed is owed now
      delta = max(delta, 0)
    end
  end
  used[k] = min(max(used[k] + delta, 0), most)
end

for _ = 1, settlements do
  local count, marker, lease = ask[i], ask[i + 1], ask[i + 2]
  i = i + 3
  local first = marker == 0 or redis.call('SET', KEYS[marker], '1', 'NX', 'PX', ARGV[3])
  for _ = 1, count do
    if first then
      local k = ask[i + 1]
      local p = ready(ask[i], k)
      if ask[p] == LEASES and ask[i + 2] > 0 then
        prolong(k, p, lease_name(lease), ask[i + 2])
      elseif ask[p] == LEASES then
        give_back(k, lease_name(lease))
      else
        correct(k, p, ask[i + 2], ask[i + 3])
        wet[k] = p
      end
    end
    i = i + 4
  end
end

-- When `need` units could be there, from now; never: a window, which is as good as anything.
local function retry_in(k, p, cost)
  local kind, limit, window, burst = ask[p], ask[p + 1], ask[p + 2], ask[p + 3]
  local need, at, wait = max(cost, 1), ats[k], 0
  if kind == GCRA then
    if cost <= burst then
      wait = at - now + ceil((need - room(k, kind, limit, window, burst)) * window / limit)
    end
  elseif cost <= limit then
    if kind == LEASES then
      local nth = text(need - (limit - used[k]) - 1)
      local free = redis.call('ZRANGE', KEYS[k + 1], nth, nth, 'WITHSCORES')
      wait = tonumber(free[2] or now) - now
    elseif kind == FIXED then
      wait = at - at % window + window - now
    else
      local slack = limit - used[k] - need
      local start = at - at % window
      if slack >= 0 then  -- then it is the window before that is in the way
        wait = start + window - floor(slack * window / before[k]) - now
      else
        wait = start + 2 * window - min(floor((limit - need) * window / used[k]), window) - now
      end
    end
  end
  return wait > 0 and wait or window
end

-- A clock that went back must not hold leases for longer than they were meant to live.
local function shorten(k, window)
  local most = text(now + window)
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[k + 1], '(' .. most, '+inf')) do
    redis.call('ZADD', KEYS[k + 1], most, name)
  end
end

local function refuse(k, p, cost)
  local kind, limit, window, mitigation = ask[p], ask[p + 1], ask[p + 2], ask[p + 4]
  if kind == LEASES then
    shorten(k, window)
  end
  local reset = reset_in(k, kind, limit, window)
  if untils[k] > now then
    local wait = untils[k] - now
    return 0, max(reset, wait), wait
  end
  local left, wait = max(0, floor(room(k, kind, limit, window, ask[p + 3]))), retry_in(k, p, cost)
  if mitigation > 0 then
    why[k], untils[k], wet[k] = 1, now + mitigation, p
  end
  return left, max(reset, mitigation), max(wait, mitigation)
end

local late = now > not_after
local answer = {now, late}
local n = 2
if late then
  exchanges = 0
end

for _ = 1, exchanges do
  local count, lease = ask[i], ask[i + 1]
  local from, good = i + 2, true
  i = from + 3 * count
  -- What fits is taken for the time being, so that a later charge on the same key sees it.
  local fits = {}
  for c = from, i - 3, 3 do
    local k, cost = ask[c + 1], ask[c + 2]
    local p = ready(ask[c], k)
    local ok = untils[k] <= now and max(cost, 1) <= room(k, ask[p], ask[p + 1], ask[p + 2], ask[p + 3])
    fits[c] = ok
    if ok then
      used[k] = used[k] + cost
    else
      good = false
    end
  end
  if not good then
    for c = from, i - 3, 3 do
      if fits[c] then
        used[ask[c + 1]] = used[ask[c + 1]] - ask[c + 2]
      end
    end
  end
  n = n + 1
  answer[n] = good
  for c = from, i - 3, 3 do
    local k, cost, p = ask[c + 1], ask[c + 2], 5 * ask[c]
    local kind, limit, window = ask[p], ask[p + 1], ask[p + 2]
    local left, reset, wait = 0, 0, 0
    if good and cost > 0 then
      if kind == LEASES then
        local expires, name = text(now + window), lease_name(lease)
        if cost == 1 then
          redis.call('ZADD', KEYS[k + 1], expires, name)
        else
          for place = 1, cost do
            redis.call('ZADD', KEYS[k + 1], expires, name .. place)
          end
        end
        redis.call('PEXPIRE', KEYS[k + 1], text(ceil(window / 1000) + 1000))
      else
        wet[k] = p
      end
    end
    if fits[c] then
      left = max(0, floor(room(k, kind, limit, window, ask[p + 3])))
      reset = (good and cost > 0 and kind == LEASES) and window or reset_in(k, kind, limit, window)
    else
      left, reset, wait = refuse(k, p, cost)
    end
    answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4], answer[n + 5] = fits[c], left, reset, wait, ats[k]
    n = n + 5
  end
end

for k, p in pairs(wet) do
  write(k, ask[p], ask[p + 1], ask[p + 2])
end
return cmsgpack.pack(answer)
