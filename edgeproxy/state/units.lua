-- A key's state in Redis: how it is read, brought up to date and written. The other scripts are put behind this one.
--
-- KEYS[k] is a string (or absent) of FORMAT: what `until` is for (0 nothing, 1 mitigation, 2 block), the kind of quota,
-- `until`, `at`, `used`, `before`. Those four are doubles that hold integers of microseconds, or units; exact below 2^53.
--   at      when the rest was true; it never goes back, but it is never taken to be later than now + window
--   used    GCRA: units in use, as multiples of 2^-20, rounded up; FIXED, SLIDING: of the window that holds `at`
--   before  SLIDING: units of the window before that one
-- LEASES are a sorted set at KEYS[k + 1], names by expiry; their string exists only while they are refused everything.
-- edgeproxy/state/counting.py says the same in Python; tests/unit/state/test_redis_units.py holds the two together.
local GCRA, FIXED, SLIDING, LEASES, NONE = 0, 1, 2, 3, 255
local FORMAT = '<BBdddd'
local FINE = 1048576
local OWED = 100

local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

-- By index of the key: what was read of it.
local why, kinds, untils, ats, used, before, wet = {}, {}, {}, {}, {}, {}, {}

local function text(number)
  return string.format('%.0f', number)
end

local function finer(units)
  return ceil(units * FINE) / FINE
end

-- Unpacks KEYS[k]'s string without knowing its quota.
local function read(k, value)
  if value and #value == 34 then
    why[k], kinds[k], untils[k], ats[k], used[k], before[k] = struct.unpack(FORMAT, value)
  else
    why[k], kinds[k], untils[k], ats[k], used[k], before[k] = 0, NONE, 0, now, 0, 0
  end
  if why[k] == 2 and untils[k] <= now then
    why[k], untils[k] = 0, 0
  end
end

-- Units of the window before that still count, at `at`.
local function share(k, window)
  if before[k] == 0 then
    return 0
  end
  return before[k] * (window - ats[k] % window) / window
end

-- Reads KEYS[k] for a quota and brings it up to now. Leases that expired are removed.
local function open(k, value, kind, limit, window, mitigation)
  read(k, value)
  if why[k] == 1 then
    untils[k] = min(untils[k], now + mitigation)
    if untils[k] <= now then
      why[k], untils[k] = 0, 0
    end
  end
  if kind == LEASES then
    kinds[k], ats[k] = kind, now
    redis.call('ZREMRANGEBYSCORE', KEYS[k + 1], '-inf', text(now))
    used[k] = redis.call('ZCARD', KEYS[k + 1])
    return
  end
  if kinds[k] ~= kind then
    kinds[k], ats[k], used[k], before[k] = kind, now, 0, 0
    return
  end
  local at = ats[k]
  if at >= now then
    ats[k] = min(at, now + window)
    return
  end
  ats[k] = now
  if kind == GCRA then
    if used[k] > 0 then
      used[k] = max(0, finer(used[k] - (now - at) * limit / window))
    end
  else
    local passed = floor(now / window) - floor(at / window)
    if passed > 0 then
      before[k] = (kind == SLIDING and passed == 1) and used[k] or 0
      used[k] = 0
    end
  end
end

-- Units that are left; below 0: owed. Not rounded.
local function room(k, kind, limit, window, burst)
  if kind == GCRA then
    return burst - used[k]
  elseif kind == SLIDING then
    return limit - used[k] - share(k, window)
  end
  return limit - used[k]
end

-- Microseconds until nothing is used any more, mitigation aside.
local function reset_in(k, kind, limit, window)
  local at = ats[k]
  if kind == GCRA then
    return used[k] > 0 and at - now + ceil(used[k] * window / limit) or 0
  elseif kind == LEASES then
    if used[k] == 0 then
      return 0
    end
    local last = redis.call('ZRANGE', KEYS[k + 1], -1, -1, 'WITHSCORES')
    return max(0, tonumber(last[2] or now) - now)
  elseif used[k] > 0 then
    return at - at % window + (kind == SLIDING and 2 or 1) * window - now
  end
  return before[k] > 0 and at - at % window + window - now or 0
end

-- Writes KEYS[k]'s string: for as long as it can matter, and a second.
local function write(k, kind, limit, window)
  local life = max(reset_in(k, kind, limit, window), untils[k] - now)
  if kind == LEASES then
    life = untils[k] - now
  end
  if life <= 0 then
    redis.call('DEL', KEYS[k])
    return
  end
  local value = struct.pack(FORMAT, why[k], kinds[k], untils[k], ats[k], used[k], before[k])
  redis.call('SET', KEYS[k], value, 'PX', text(ceil(life / 1000) + 1000))
end
