-- Forgets what a key was charged, and that it is mitigated; a block stays. KEYS: its string, its leases.
read(1, redis.call('GET', KEYS[1]))
redis.call('DEL', KEYS[2])
if why[1] ~= 2 then
  return redis.call('DEL', KEYS[1])
end
local value = struct.pack(FORMAT, why[1], NONE, untils[1], now, 0, 0)
redis.call('SET', KEYS[1], value, 'PX', text(ceil((untils[1] - now) / 1000) + 1000))
return 1
