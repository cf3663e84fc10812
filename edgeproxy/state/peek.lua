-- Looks one key up. KEYS: its string, its leases; ARGV: kind, limit, window, burst, mitigation. Nothing is written but what
-- expired. Answers: remaining, reset, blocked.
local kind, limit, window = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
open(1, redis.call('GET', KEYS[1]), kind, limit, window, tonumber(ARGV[5]))
local blocked = max(0, untils[1] - now)
return {
  max(0, floor(room(1, kind, limit, window, tonumber(ARGV[4])))),
  max(reset_in(1, kind, limit, window), blocked),
  blocked,
}
